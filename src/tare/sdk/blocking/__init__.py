"""The blocking face. Only `plug` is written by hand; the rest is made from `tare.sdk.aio` by scripts/sdkfaces."""

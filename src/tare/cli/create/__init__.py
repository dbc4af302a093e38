"""From the flags of `tare run` and `tare create` to the body of POST /containers/create, field by field as Docker maps
them."""

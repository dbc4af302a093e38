"""One module per command, named for its path: `container ls` is `container_ls`. Each holds a `COMMAND`."""

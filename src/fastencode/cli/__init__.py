"""fastencode-tune: the command, one file per subcommand. The only room that knows both tune and study."""

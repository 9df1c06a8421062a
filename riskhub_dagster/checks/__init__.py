"""Asset checks that stand beside the assets. Those that an asset itself can tell are in it."""

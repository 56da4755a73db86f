"""How fast fxpipe is on the user's own machine, beside what would be run otherwise."""

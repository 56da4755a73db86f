"""Reading and writing of weights folders, with their model cards."""

"""The one table of samples, how it is made, and how it becomes batches."""

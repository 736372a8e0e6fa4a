"""The small-scale study: surrogates of one teacher under many partitions."""

"""Data sets, each behind the same small interface (`frcnn_jax.data.records.Source`)."""

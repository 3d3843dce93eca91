"""The interop suite. Each part is a module that is run beside a pipeline; see ../run.sh."""

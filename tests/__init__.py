import pipelines  # noqa: F401  (sets how torch waits, before a test imports torch)

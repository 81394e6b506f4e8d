"""Tables as files: the log, planned reading, exact filters, written scores; no Spark, no JVM."""

"""The only room that knows PySpark and Delta: Java, jars, sessions, engines, streams."""

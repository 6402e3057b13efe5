"""The mathematics in plain torch: definition, fallback, and judge of every other backend."""

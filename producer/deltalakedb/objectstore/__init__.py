"""Object stores behind one small port: where `_delta_log`, identity and watermark live. `open_object_store` picks."""

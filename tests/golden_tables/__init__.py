"""Delta tables that others wrote: imported, mirrored from SQL alone, and compared with what they were."""

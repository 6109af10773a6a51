"""The SQL schema as data: names, order, both dialects alike, every Delta field at home."""

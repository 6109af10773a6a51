"""The committer on real Kafka and Postgres, when it and they are killed, stopped, fail and fight."""

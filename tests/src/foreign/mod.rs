//! Clients that share no line with ours: kcat (librdkafka, its own main loop) and PyPI's confluent-kafka.

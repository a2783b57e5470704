//! Durable operators: the only way from a stream to state.

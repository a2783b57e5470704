//! What any broker must do.

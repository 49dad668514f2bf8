//! The ringfence command.

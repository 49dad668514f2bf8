//! Profiles: what is compiled.

//! Manifests: what may run; compiled to the binary boot module with kernels, tables and start states.

//! Static scheduler: a vCPU owns its processor.
#![no_std]

//! A clock page that guests read without an exit, in the layout of KVM's clock.
#![no_std]

//! Bench machines: emulators that behave like a given machine.

//! The real state machine and the functions' real binaries, on a local AWS.

pub mod cloud;

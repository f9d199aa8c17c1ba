//! Encryption engines: values in, values and requests out.

pub mod matrix;
pub mod omemo;

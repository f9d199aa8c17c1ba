//! The routes as a homeserver meets them, on a real database.

mod requests;
mod support;
mod tokens;
mod transactions;

//! What guests may call, one file per interface.

mod context;
mod logging;

//! Real components through the engine: what is refused, what a call can come to, what a guest may touch.
//! They are made of a few lines of WebAssembly text, so that no toolchain is needed.

mod calls;
mod capabilities;
mod diagnosis;
mod guests;
mod kinds;
mod limits;
mod load;
mod sandbox;

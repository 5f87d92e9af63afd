//! The whole: real `segmenter` processes, a real server, real .wasm files. Judged by what handlers did
//! and by what lies in Redis, never by what the host says about itself.

mod ancestor;
mod bad_input;
mod batch;
mod chaos;
mod crash;
mod deploy;
mod deploy_crash;
mod deployed;
mod examples;
mod failing;
mod failure;
mod failures_memory;
mod failures_table;
mod flow;
mod foreign;
mod load;
mod numbered;
mod operator;
mod payload_max;
mod read_ahead;
mod redrive;
mod shadow;
mod source;
mod support;
mod swap;
mod trouble;

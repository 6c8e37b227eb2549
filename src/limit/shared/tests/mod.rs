//! Shared limits against a real server: the scripts by a clock that the test sets, nodes by the server's own.

#[path = "../../../../tests/it/support/redis.rs"]
#[allow(unreachable_pub, dead_code)]
mod redis;

mod change_over;
mod nodes;
mod scripts;

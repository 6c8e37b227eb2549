//! Every call becomes one row of `proxy_calls`: the record, the journal that makes it durable, the drain that writes the row.

pub mod record;

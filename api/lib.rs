//! Types, conditions, reasons and contract constants of capi-kamaji: no client, no I/O.

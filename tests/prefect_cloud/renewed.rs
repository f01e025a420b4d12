//! API keys that are replaced where Prefect 1.x keeps them.

use super::common::can_mount;
use super::common::renewed::{Place, check};
use super::server::{KEY, Server};

const CONFIG: Place = (".prefect/config.toml", |address, key| {
    format!("[cloud]\napi = \"http://{address}\"\napi_key = \"{key}\"\n")
});
/// By `prefect auth login`, which keeps one for each server.
const AUTH: Place = (".prefect/auth.toml", |address, key| {
    format!("[\"{}\"]\napi_key = \"{key}\"\n", address.replace(':', "-"))
});

#[test]
fn an_api_key_that_is_replaced_is_read_again_where_it_was_found_and_for_the_same_address_alone() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    check("prefect-cloud", &[], &server.address, KEY, CONFIG);
    check(&format!("prefect-cloud:http://{}", server.address), &[], &server.address, KEY, AUTH);
}

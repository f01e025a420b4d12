//! Logins that are replaced where Prefect 3 keeps them.

use super::common::can_mount;
use super::common::renewed::{Place, check};
use super::secured::SETTINGS;
use super::server::{PATIENT, Process};

const PROFILE: Place = (".prefect/profiles.toml", |address, login| {
    format!(
        "active = \"a\"\n[profiles.a]\nPREFECT_API_URL = \"http://{address}/api\"\n\
         PREFECT_API_AUTH_STRING = \"admin:{login}\"\n"
    )
});
/// Found by a path that means nothing to a daemon in another directory.
const DOTENV: Place = (".env", |address, login| {
    format!(
        "PREFECT_API_URL=http://{address}/api\nSECRET={login}\nPREFECT_API_AUTH_STRING=admin:${{SECRET}}\n"
    )
});

#[test]
fn a_login_that_is_replaced_is_read_again_where_it_was_found_and_for_the_same_address_alone() {
    let Some(server) = can_mount().then(|| Process::with(SETTINGS)).flatten() else { return };
    for place in [PROFILE, DOTENV] {
        check("prefect", &PATIENT, &server.address, "secret-password", place);
    }
}

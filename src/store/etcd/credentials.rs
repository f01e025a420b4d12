//! Login and certificates, of the client and of the cluster's authority. Files are read again when their contents are refused,
//! because others replace them before they expire.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::settings::{self, Settings};
use crate::store::http::{Http, Tls};

pub(super) struct Credentials {
    settings: Settings,
    timeout: Duration,
    client: Mutex<Client>,
    /// Held while files are read, so that many callers read them once.
    reading: tokio::sync::Mutex<()>,
    login: Mutex<Option<(String, String)>>,
}

/// An HTTP client, and the contents of the files that it was made of.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) http: Http,
    files: Arc<[Option<Vec<u8>>]>,
}

impl Credentials {
    pub(super) fn new(settings: &Settings, timeout: Duration) -> Result<Self, String> {
        Ok(Self {
            client: Mutex::new(client(settings, timeout)?),
            reading: tokio::sync::Mutex::default(),
            login: Mutex::new(settings.login.clone()),
            settings: settings.clone(),
            timeout,
        })
    }

    pub(super) fn http(&self) -> Client {
        self.client.lock().clone()
    }

    pub(super) fn with_tls(&self) -> bool {
        self.settings.address.tls
    }

    /// User and password, if there is a login.
    pub(super) fn login(&self) -> Option<(String, String)> {
        self.login.lock().clone()
    }

    /// Reads the certificates again after those of `used` were refused. Returns whether they have changed, so that a retry makes
    /// sense.
    pub(super) async fn read_certificates(&self, used: &Client) -> bool {
        let _one_at_a_time = self.reading.lock().await;
        if !Arc::ptr_eq(&self.client.lock().files, &used.files) {
            return true;
        }
        let (settings, timeout, old) = (self.settings.clone(), self.timeout, used.files.clone());
        let read = move || (*files(&settings) != *old).then(|| client(&settings, timeout));
        match tokio::task::spawn_blocking(read).await {
            Ok(Some(Ok(client))) => {
                *self.client.lock() = client;
                true
            }
            // Others may be about to replace the second file.
            Ok(Some(Err(why))) => {
                tracing::warn!("the new certificates cannot be used: {why}");
                false
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Reads all files again, although nothing is refused.
    pub(super) async fn read_all(&self) {
        let used = self.http();
        self.read_certificates(&used).await;
        self.read_password().await;
    }

    /// Reads the password again. Returns whether it has changed.
    pub(super) async fn read_password(&self) -> bool {
        let Some(file) = self.settings.password_file.clone() else { return false };
        let read = tokio::task::spawn_blocking(move || settings::password_in(&file)).await;
        let Ok(read) = read.inspect_err(|error| tracing::error!("{error}")) else { return false };
        let password = match read {
            Ok(password) => password,
            Err(why) => {
                tracing::warn!("the password cannot be read again: {why}");
                return false;
            }
        };
        let mut login = self.login.lock();
        let Some((_, old)) = &mut *login else { return false };
        std::mem::replace(old, password.clone()) != password
    }
}

fn client(settings: &Settings, timeout: Duration) -> Result<Client, String> {
    let count = u32::try_from(settings.address.members.len()).unwrap_or(u32::MAX);
    let on = settings.address.tls;
    let tls = Tls {
        on,
        certificates: settings.authority.as_deref().filter(|_| on),
        only: true,
        identity: settings.identity.as_ref().filter(|_| on).map(|(one, key)| (&**one, &**key)),
    };
    // Read before the client reads them: a change in between costs one more read.
    let files = files(settings);
    Ok(Client { http: Http::with(&tls, timeout * 2 / (count.saturating_add(2)), timeout)?, files })
}

fn files(settings: &Settings) -> Arc<[Option<Vec<u8>>]> {
    let identity = settings.identity.iter().flat_map(|(one, key)| [one, key]);
    let read = |file: &PathBuf| std::fs::read(file).ok();
    settings.authority.iter().chain(identity).map(read).collect()
}

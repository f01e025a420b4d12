//! The places where Prefect 3 keeps its settings.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::dotenv;
use crate::store::settings::{Environment, read, table, within};

/// Where a setting was found.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Environment,
    File(&'a Layer),
}

impl Found<'_> {
    /// For messages.
    pub(super) fn from(self) -> &'static str {
        match self {
            Self::Environment => "the environment",
            Self::File(layer) => layer.place.from(),
        }
    }
}

/// Where in a file settings are.
#[derive(Clone, PartialEq, Eq)]
enum Place {
    /// Variables, as in a shell.
    Dotenv,
    /// `[api]` of a project, in this table.
    Project(&'static [&'static str]),
    /// The table of this profile.
    Profile(String),
}

impl Place {
    const fn from(&self) -> &'static str {
        match self {
            Self::Dotenv => ".env",
            Self::Project([]) => "prefect.toml",
            Self::Project(_) => "pyproject.toml",
            Self::Profile(_) => "the active profile in profiles.toml",
        }
    }
}

/// A file with settings.
#[derive(Clone)]
pub(super) struct Layer {
    file: PathBuf,
    place: Place,
    table: Table,
}

impl Layer {
    fn read(file: PathBuf, place: Place, environment: Environment<'_>) -> Result<Self, String> {
        let table = match &place {
            Place::Dotenv => {
                let set = dotenv::parse(&read(&file)?.unwrap_or_default(), environment);
                set.into_iter().map(|(name, text)| (name.to_ascii_uppercase(), Value::String(text))).collect()
            }
            Place::Project(path) => within(&table(&file)?, path).cloned().unwrap_or_default(),
            Place::Profile(name) => within(&table(&file)?, &["profiles", name]).cloned().unwrap_or_default(),
        };
        Ok(Self { file, place, table })
    }

    fn text(&self, setting: &str) -> Option<String> {
        plain(match &self.place {
            Place::Project(_) => within(&self.table, &["api"])?.get(setting)?,
            Place::Dotenv | Place::Profile(_) => self.table.get(&variable(setting))?,
        })
    }
}

/// Prefect's settings; the first layer is the strongest, after the environment.
pub(super) struct Sources([Layer; 4]);

impl Sources {
    pub(super) fn read(directory: &Path, environment: Environment<'_>) -> Result<Self, String> {
        // Read again from another directory, perhaps.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let layer =
            |name: &str, place: Place| Layer::read(absolute(directory.join(name)), place, environment);
        let dotenv = layer(".env", Place::Dotenv)?;
        let prefect = layer("prefect.toml", Place::Project(&[]))?;
        let pyproject = layer("pyproject.toml", Place::Project(&["tool", "prefect"]))?;
        let home = PathBuf::from(environment("HOME").unwrap_or_else(|| "/".into()));
        let in_home =
            |path: String| path.strip_prefix("~/").map_or(PathBuf::from(&path), |rest| home.join(rest));
        let place = |name: &str| environment(name).or_else(|| plain(dotenv.table.get(name)?));
        let named = place("PREFECT_PROFILES_PATH").filter(|path| !path.is_empty());
        let in_project = |layer: &Layer| plain(layer.table.get("profiles_path")?);
        let named = named.or_else(|| [&prefect, &pyproject].into_iter().find_map(in_project));
        let prefect_home = place("PREFECT_HOME").map_or_else(|| home.join(".prefect"), in_home);
        let profiles = absolute(named.map_or_else(|| prefect_home.join("profiles.toml"), in_home));
        let active = match environment("PREFECT_PROFILE") {
            Some(active) => active,
            None => table(&profiles)?.get("active").and_then(Value::as_str).unwrap_or_default().to_owned(),
        };
        let profile = Layer::read(profiles, Place::Profile(active), environment)?;
        Ok(Self([dotenv, prefect, pyproject, profile]))
    }

    /// The setting `PREFECT_API_*`, and where it is from.
    pub(super) fn text(&self, setting: &str, environment: Environment<'_>) -> Option<(String, Found<'_>)> {
        let from_environment = environment(&variable(setting)).map(|text| (text, Found::Environment));
        let from_file = || self.0.iter().find_map(|layer| Some((layer.text(setting)?, Found::File(layer))));
        from_environment.or_else(from_file).filter(|(text, _)| !text.is_empty())
    }

    /// Where a login is read again; `None` for one from the environment, which does not change.
    pub(super) fn source(&self, found: Found<'_>) -> Option<Source> {
        let Found::File(layer) = found else { return None };
        let place = |layer: &Layer| (layer.file.clone(), layer.place.clone());
        let addresses = self.0.iter().map(|layer| (place(layer), layer.text("url"))).collect();
        Some(Source { login: place(layer), addresses })
    }
}

/// The source of a login, and the addresses in the settings at that time: with another address it may be another server's.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    login: (PathBuf, Place),
    addresses: Vec<((PathBuf, Place), Option<String>)>,
}

impl Source {
    /// Reads the setting again.
    pub(super) fn read(&self, setting: &str, environment: Environment<'_>) -> Result<String, String> {
        for ((file, place), address) in &self.addresses {
            if Layer::read(file.clone(), place.clone(), environment)?.text("url") != *address {
                return Err(format!(
                    "{} names another address than it did, whose login it may be; to use that one, mount again",
                    file.display()
                ));
            }
        }
        let (file, place) = self.login.clone();
        let layer = Layer::read(file, place, environment)?;
        let text = layer.text(setting).filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("{} has none any more", layer.file.display()))
    }
}

/// The environment's name of a setting.
fn variable(setting: &str) -> String {
    format!("PREFECT_API_{}", setting.to_ascii_uppercase())
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}

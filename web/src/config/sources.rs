//! Sources of the configuration: the file, then the environment, then files of secrets.

use std::{collections::BTreeMap, path::Path};

use super::{Config, ConfigError, lotus};

const PREFIX: &str = "SEALYARD_";
/// Variables with the prefix that are not configuration keys.
const OTHERS: [&str; 11] = [
    "SEALYARD_CONFIG",
    "SEALYARD_URL",
    "SEALYARD_AGENT_DIR",
    "SEALYARD_ENROL_TOKEN",
    "SEALYARD_FILES_LISTEN",
    "SEALYARD_FILES_URL",
    "SEALYARD_PARAMETERS_MIRROR",
    "SEALYARD_TOKEN_FILE",
    "SEALYARD_TEST_POSTGRES",
    "SEALYARD_TRIALS",
    "SEALYARD_HISTORIES",
];

/// Keys whose values are text even if they consist of digits only.
const TEXTS: [&str; 11] = [
    "session_secret",
    "node_token",
    "stripe_secret_key",
    "stripe_webhook_secret",
    "smtp_user",
    "smtp_password",
    "database_url",
    "max_fee_pre_commit",
    "max_fee_prove_commit",
    "max_fee_window_post",
    "max_fee_recover",
];

/// Keys whose value can be the content of a file: named by `SEALYARD_<KEY>_FILE`, or by the key
/// itself in the folder that systemd gives a service for its credentials.
const SECRETS: [&str; 6] = [
    "session_secret",
    "node_token",
    "stripe_secret_key",
    "stripe_webhook_secret",
    "smtp_password",
    "database_url",
];

/// Adds the secrets that are in files. A secret that is given twice is an error.
fn add_secrets(
    table: &mut toml::Table,
    environment: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    for key in SECRETS {
        let named = environment.get(&format!("{PREFIX}{}_FILE", key.to_uppercase()));
        let credential = environment
            .get("CREDENTIALS_DIRECTORY")
            .map(|folder| Path::new(folder).join(key))
            .filter(|path| path.exists());
        let Some(path) = named.map(|path| path.into()).or(credential) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).map_err(|error| ConfigError::Read {
            path: format!("{} (for {key})", path.display()),
            reason: error.to_string(),
        })?;
        let value = toml::Value::String(text.trim_end_matches(['\r', '\n']).to_owned());
        if table.insert(key.to_owned(), value).is_some() {
            return Err(ConfigError::Value {
                key,
                must: "is given as text and as a file; keep one of them",
            });
        }
    }
    Ok(())
}

/// Converts a variable's value to the type that its key expects: text, a number, or a list written
/// as TOML.
fn from_environment(key: &str, value: String) -> toml::Value {
    let is_list = value.trim_start().starts_with('[');
    let is_text = TEXTS.contains(&key);
    let list = || {
        format!("v = {value}")
            .parse::<toml::Table>()
            .ok()?
            .remove("v")
    };
    match value.parse() {
        _ if is_text => toml::Value::String(value),
        Ok(number) => toml::Value::Integer(number),
        Err(_) => if is_list { list() } else { None }.unwrap_or(toml::Value::String(value)),
    }
}

/// Whether a variable with the prefix sets a key; others name a file of a secret, or belong to
/// other programs.
fn is_setting(name: &str) -> bool {
    let names_a_file = SECRETS
        .iter()
        .any(|key| name == format!("{PREFIX}{}_FILE", key.to_uppercase()));
    !names_a_file && !OTHERS.contains(&name)
}

fn from_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let unreadable = |reason: String| ConfigError::Read {
        path: path.display().to_string(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    text.parse()
        .map_err(|error: toml::de::Error| unreadable(error.to_string()))
}

/// Checks each key on its own, so that the error can name the wrong one.
fn check_each_key(table: &toml::Table) -> Result<(), ConfigError> {
    for (key, value) in table {
        let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
        if let Err(error) = alone.try_into::<Config>() {
            return Err(ConfigError::Parse(without_value(key, &error)));
        }
    }
    Ok(())
}

/// The parser's message quotes the value, which may be a secret. Only the first line, up to the
/// value, is shown.
fn without_value(key: &str, error: &toml::de::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let cause = line.split("string \"").next().unwrap_or_default().trim();
    if cause.contains(key) {
        cause.to_owned()
    } else {
        format!("{key}: {cause}")
    }
}

impl Config {
    /// Reads `path` (if given), then the environment.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = path.map_or_else(|| Ok(toml::Table::new()), from_file)?;
        let environment: BTreeMap<String, String> = environment.collect();
        for (name, value) in &environment {
            let Some(key) = name.strip_prefix(PREFIX).filter(|_| is_setting(name)) else {
                continue;
            };
            let key = key.to_lowercase();
            let parsed = from_environment(&key, value.clone());
            table.insert(key, parsed);
        }
        add_secrets(&mut table, &environment)?;
        if !table.contains_key("node_url")
            && let Some(node) = lotus::from_environment(&environment)?
        {
            table.insert("node_url".into(), toml::Value::String(node.url));
            table
                .entry("node_token")
                .or_insert(toml::Value::String(node.token));
        }
        check_each_key(&table)?;
        let mut config: Self = table
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Parse(error.message().to_owned()))?;
        let length = config.public_url.trim_end_matches('/').len();
        config.public_url.truncate(length);
        Ok(config)
    }
}

//! References to secrets in values, in the words of Kafka's config providers.
//!
//! | | |
//! | --- | --- |
//! | `${env:NAME}` | an environment variable |
//! | `${file:PATH:KEY}` | a value of another properties file |
//! | `${dir:PATH:FILE}` or `${directory:…}` | the text of a file, such as a mounted secret, without a line end after it |
//!
//! These names need no `config.providers`; a file may give them others, for Kafka's own three classes. Other than in
//! Kafka, a reference to what is not there is an error.

use std::collections::BTreeMap;
use std::path::Path;

use super::properties;

#[derive(Clone, Copy, Debug)]
enum Provider {
    Environment,
    File,
    Directory,
}

/// The providers by their names.
#[derive(Debug)]
pub(super) struct Providers(BTreeMap<String, Provider>);

impl Default for Providers {
    fn default() -> Self {
        let known = [
            ("env", Provider::Environment),
            ("file", Provider::File),
            ("dir", Provider::Directory),
            ("directory", Provider::Directory),
        ];
        Self(known.into_iter().map(|(name, provider)| (name.to_owned(), provider)).collect())
    }
}

impl Providers {
    /// The providers that a file names, whose lines about them are taken out.
    ///
    /// # Errors
    /// The setting and the reason: the class is none of Kafka's own.
    pub(super) fn of(lines: &mut Vec<(String, String)>) -> Result<Self, (String, String)> {
        let mut this = Self::default();
        for (name, class) in lines.iter() {
            let alias = name.strip_prefix("config.providers.").and_then(|rest| rest.strip_suffix(".class"));
            if let Some(alias) = alias {
                let provider = match class.rsplit('.').next() {
                    Some("EnvVarConfigProvider") => Provider::Environment,
                    Some("FileConfigProvider") => Provider::File,
                    Some("DirectoryConfigProvider") => Provider::Directory,
                    _ => {
                        let why = "only Kafka's EnvVarConfigProvider, FileConfigProvider and DirectoryConfigProvider \
                                   are known";
                        return Err((name.clone(), why.to_owned()));
                    }
                };
                this.0.insert(alias.to_owned(), provider);
            }
        }
        lines.retain(|(name, _)| name != "config.providers" && !name.starts_with("config.providers."));
        Ok(this)
    }

    /// The value with all its references resolved, once: what they stand for is taken as it is.
    ///
    /// # Errors
    /// The reason, which holds no part of the value but names of variables and files.
    pub(super) fn resolve(&self, value: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((reference, behind)) = after.split_once('}') else { break };
            out.push_str(before);
            match reference.split_once(':').and_then(|(name, what)| Some((self.0.get(name)?, what))) {
                Some((provider, what)) => out.push_str(&provider.get(what)?),
                // A password may hold these characters; Kafka, too, leaves what no provider stands for as it is.
                None => out.push_str(&format!("${{{reference}}}")),
            }
            rest = behind;
        }
        out.push_str(rest);
        Ok(out)
    }
}

impl Provider {
    fn get(self, what: &str) -> Result<String, String> {
        // A path may hold a colon; a key does not.
        let path_and_key = || {
            what.rsplit_once(':').filter(|(path, key)| !path.is_empty() && !key.is_empty()).ok_or_else(|| {
                "a reference to a file is ${file:PATH:KEY} for a value of a properties file, or ${dir:PATH:FILE} for \
                 the text of a file"
                    .to_owned()
            })
        };
        match self {
            Self::Environment => std::env::var(what).map_err(|why| format!("the environment variable '{what}': {why}")),
            Self::File => {
                let (path, key) = path_and_key()?;
                let text = std::fs::read_to_string(path).map_err(|why| format!("{path} cannot be read: {why}"))?;
                let found = properties::read(&text).into_iter().rev().find(|(name, _)| name == key);
                found.map(|(_, value)| value).ok_or_else(|| format!("{path} has no value '{key}'"))
            }
            Self::Directory => {
                let (folder, file) = path_and_key()?;
                let path = Path::new(folder).join(file);
                let text = std::fs::read_to_string(&path);
                let text = text.map_err(|why| format!("{} cannot be read: {why}", path.display()))?;
                let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
                Ok(text.to_owned())
            }
        }
    }
}

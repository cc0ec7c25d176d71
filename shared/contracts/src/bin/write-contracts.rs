//! Writes the JSON Schemas and the AsyncAPI document into this crate's folder: `cargo run -p rolebridge-contracts --bin write-contracts`.

use std::{
    error::Error,
    fs,
    io::{self, Write as _},
    path::Path,
};

use rolebridge_contracts::generate;

fn main() -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut examples = generate::Examples::new();
    for entry in fs::read_dir(home.join("golden/v1"))? {
        let path = entry?.path();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let value = serde_json::from_slice(&fs::read(&path)?)
            .map_err(|error| format!("{} is not JSON: {error}", path.display()))?;
        examples.insert(name, value);
    }
    let files = generate::files(&examples);
    fs::create_dir_all(home.join("schemas"))?;
    for entry in fs::read_dir(home.join("schemas"))? {
        let entry = entry?;
        if !files.contains_key(&format!("schemas/{}", entry.file_name().to_string_lossy())) {
            fs::remove_file(entry.path())?;
            writeln!(io::stdout(), "removed {}", entry.path().display())?;
        }
    }
    for (name, text) in files {
        let path = home.join(&name);
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            fs::write(&path, text)?;
            writeln!(io::stdout(), "wrote {}", path.display())?;
        }
    }
    Ok(())
}

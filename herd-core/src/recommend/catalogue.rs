//! What is known of well-known models before any node has them: a data file with its sources, and its reader.

use crate::name::ModelName;
use crate::substitute::Category;

use super::memory::KvShape;

/// The models that come with herd.
const BUILT_IN: &str = include_str!("../../data/models.tsv");
/// Columns of the file, in order.
const COLUMNS: [&str; 12] = [
    "name",
    "also",
    "family",
    "category",
    "parameters",
    "size",
    "layers",
    "kv_heads",
    "head_dim",
    "context",
    "capabilities",
    "source",
];

/// One model of the catalogue; `None` = not known for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownModel {
    /// Its name in Ollama's library.
    pub name: ModelName,
    /// Other names of the same build.
    pub also: Vec<ModelName>,
    /// Its architecture, as Ollama names it.
    pub family: String,
    /// What it is for.
    pub category: Category,
    /// `8.0B`, as its authors tell it.
    pub parameters: String,
    /// The most that it takes on disk.
    pub size_bytes: Option<u64>,
    /// What a token costs in its KV cache.
    pub kv: Option<KvShape>,
    /// Context that it was trained for, tokens.
    pub context_length: Option<u64>,
    /// Ollama's names of what it can do.
    pub capabilities: Vec<String>,
    /// Where this is from: `library`, `config`.
    pub source: String,
}

/// Why a catalogue cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct CatalogueError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// What is known of models, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    models: Vec<KnownModel>,
}

impl Catalogue {
    /// The catalogue that comes with herd.
    ///
    /// # Panics
    /// Never: a test reads the same text.
    #[must_use]
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("the file that comes with herd is read by a test")
    }

    /// Reads a table with tabs between its columns; `#` begins a comment.
    ///
    /// # Errors
    /// With the first line that is not one, or names a model again.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut rows = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        match rows.next() {
            Some((_, header)) if header.split('\t').eq(COLUMNS) => {}
            Some((line, _)) => return Err(CatalogueError { line, reason: format!("is not {}", COLUMNS.join(" ")) }),
            None => return Ok(Self::default()),
        }
        let mut models: Vec<KnownModel> = Vec::new();
        for (line, row) in rows {
            let model = read_row(row).map_err(|reason| CatalogueError { line, reason })?;
            if models.iter().any(|known| names(known).any(|name| names(&model).any(|new| new == name))) {
                return Err(CatalogueError { line, reason: format!("{} is there twice", model.name) });
            }
            models.push(model);
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { models })
    }

    /// All models.
    #[must_use]
    pub fn models(&self) -> &[KnownModel] {
        &self.models
    }

    /// The build that `name` means, exactly.
    #[must_use]
    pub fn build(&self, name: &ModelName) -> Option<&KnownModel> {
        self.models.iter().find(|known| names(known).any(|known| known == name))
    }

    /// The model of which `name` is some build: of another quantization (`llama3.1:8b-instruct-q8_0`), its size on disk
    /// differs, its shape does not.
    #[must_use]
    pub fn shape(&self, name: &ModelName) -> Option<&KnownModel> {
        let is_build_of = |known: &&KnownModel| {
            let rest = name.as_str().strip_prefix(known.name.as_str());
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        self.build(name).or_else(|| self.models.iter().find(is_build_of))
    }
}

fn names(model: &KnownModel) -> impl Iterator<Item = &ModelName> {
    std::iter::once(&model.name).chain(&model.also)
}

fn read_row(row: &str) -> Result<KnownModel, String> {
    let cells: Vec<&str> = row.split('\t').map(str::trim).collect();
    let cells: [&str; COLUMNS.len()] =
        cells.try_into().map_err(|cells: Vec<_>| format!("has {} columns, not {}", cells.len(), COLUMNS.len()))?;
    let [name, also, family, category, parameters, size, layers, kv_heads, head_dim, context, capabilities, source] =
        cells;
    let model_name = |text: &str| ModelName::new(text).map_err(|error| format!("name {text:?} {error}"));
    let list = |text: &'static str, cell: &str| -> Vec<String> {
        cell.split(text).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    if source.is_empty() {
        return Err("has no source".into());
    }
    let kv = match (number(layers)?, number(kv_heads)?, number(head_dim)?) {
        (Some(layers), Some(kv_heads), Some(head_dim)) => Some(KvShape { layers, kv_heads, head_dim }),
        (None, None, None) => None,
        _ => return Err("has one of layers, kv_heads and head_dim without the others".into()),
    };
    Ok(KnownModel {
        name: model_name(name)?,
        also: list(",", also).iter().map(|text| model_name(text)).collect::<Result<_, _>>()?,
        family: family.to_owned(),
        category: category_named(category)?,
        parameters: parameters.to_owned(),
        size_bytes: if size.is_empty() { None } else { Some(largest_size(size)?) },
        kv,
        context_length: number(context)?,
        capabilities: list(",", capabilities),
        source: source.to_owned(),
    })
}

fn number(cell: &str) -> Result<Option<u64>, String> {
    if cell.is_empty() {
        return Ok(None);
    }
    cell.parse().ok().filter(|number| *number > 0).map(Some).ok_or_else(|| format!("{cell:?} is not a number"))
}

fn category_named(cell: &str) -> Result<Category, String> {
    let all = [
        Category::General,
        Category::Coding,
        Category::Reasoning,
        Category::Creative,
        Category::Vision,
        Category::Embedding,
    ];
    all.into_iter().find(|category| category.name() == cell).ok_or_else(|| format!("{cell:?} is not a category"))
}

/// The largest number of bytes that is shown as `cell`: half of its last digit more.
fn largest_size(cell: &str) -> Result<u64, String> {
    let bad = || format!("{cell:?} is not a size like 4.9GB");
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000)];
    let (digits, unit): (&str, u64) =
        units.iter().find_map(|(name, unit)| Some((cell.strip_suffix(name)?, *unit))).ok_or_else(bad)?;
    let (whole, tenths) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let (tenth_part, last_digit) = match tenths {
        "" => (0, unit),
        one if one.len() == 1 => (one.parse::<u64>().map_err(|_| bad())? * (unit / 10), unit / 10),
        _ => return Err(bad()),
    };
    whole.checked_mul(unit).and_then(|bytes| bytes.checked_add(tenth_part + last_digit / 2)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    #[test]
    fn the_built_in_file_is_read_and_every_row_has_its_source() {
        let catalogue = Catalogue::built_in();
        assert!((40..=80).contains(&catalogue.models().len()), "{}", catalogue.models().len());
        for model in catalogue.models() {
            assert!(model.source.split('+').all(|source| matches!(source, "library" | "config")), "{}", model.name);
            assert!(model.kv.is_none() || model.source.contains("config"), "{}", model.name);
            assert!(model.size_bytes.is_some_and(|bytes| bytes < 500_000_000_000), "{}", model.name);
        }
        let llama = catalogue.build(&name("llama3.1")).unwrap();
        assert_eq!((llama.name.as_str(), llama.size_bytes), ("llama3.1:8b", Some(4_950_000_000)));
        assert_eq!(llama.kv.map(KvShape::bytes_per_token), Some(131_072));
    }

    #[test]
    fn another_quantization_has_the_shape_and_not_the_size() {
        let catalogue = Catalogue::built_in();
        let build = name("llama3.1:8b-instruct-q8_0");
        assert!(catalogue.build(&build).is_none());
        assert_eq!(catalogue.shape(&build).unwrap().name.as_str(), "llama3.1:8b");
        assert!(catalogue.shape(&name("llama3.1:80b")).is_none(), "8b is not 80b");
        assert!(catalogue.shape(&name("nobody-knows:1b")).is_none());
    }

    #[track_caller]
    fn refused(row: &str, reason: &str) {
        let text = format!("# comment\n{}\n{row}\n", COLUMNS.join("\t"));
        assert_eq!(Catalogue::parse(&text).unwrap_err().to_string(), format!("line 3: {reason}"));
    }

    #[test]
    fn a_bad_row_is_named() {
        let row = |size: &str, layers: &str, source: &str| {
            format!("a:1b\t\tllama\tgeneral\t1B\t{size}\t{layers}\t\t\t\tcompletion\t{source}")
        };
        refused("a:1b", "has 1 columns, not 12");
        refused(&row("1.0GB", "", ""), "has no source");
        refused(&row("big", "", "library"), "\"big\" is not a size like 4.9GB");
        refused(&row("1.0GB", "32", "library"), "has one of layers, kv_heads and head_dim without the others");
        refused(&row("1.0GB", "-1", "library"), "\"-1\" is not a number");
        assert_eq!(Catalogue::parse(""), Ok(Catalogue::default()));
        assert!(Catalogue::parse("name\tsize\n").is_err());
    }

    #[test]
    fn a_rounded_size_is_read_as_the_largest_that_it_stands_for() {
        assert_eq!(largest_size("4.9GB"), Ok(4_950_000_000));
        assert_eq!(largest_size("43GB"), Ok(43_500_000_000));
        assert_eq!(largest_size("398MB"), Ok(398_500_000));
        assert!(largest_size("99999999999999999999GB").is_err() && largest_size("4.95GB").is_err());
    }
}

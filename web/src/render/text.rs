//! Shapes text for a PDF: each run as a whole and with tabular figures, in the first font that has
//! its characters.

#![expect(
    clippy::as_conversions,
    reason = "glyph positions are floating point by definition of PDF"
)]

use std::{path::Path, sync::OnceLock};

use anyhow::{Context, Result};
use harfrust::{Buffer, Feature, ShapeOptions, ShaperFont, Tag};
use krilla::text::{Font, GlyphId, KrillaGlyph};

const REGULAR: &[u8] = include_bytes!("../../../static/fonts/inter-regular.ttf");
const SEMIBOLD: &[u8] = include_bytes!("../../../static/fonts/inter-semibold.ttf");

/// Where Debian's `fonts-noto-cjk` and `fonts-noto-core` put the scripts that Inter lacks. Those
/// that are missing are left out.
const FALLBACKS: [&str; 6] = [
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/noto/NotoSansArabic-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSansThai-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSansHebrew-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSansDevanagari-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Regular,
    Semibold,
}

/// One font file, for measuring and for embedding.
struct Face {
    shaper: harfrust::Font,
    embedded: Font,
}

impl Face {
    fn new(bytes: Vec<u8>) -> Option<Self> {
        Some(Self {
            shaper: harfrust::Font::new(bytes.clone(), 0)?,
            embedded: Font::new(bytes.into(), 0)?,
        })
    }

    fn read(path: &Path) -> Option<Self> {
        Self::new(std::fs::read(path).ok()?)
    }

    fn has(&self, character: char) -> bool {
        self.shaper.charmap().map_unicode(character).is_some()
    }
}

pub struct Fonts {
    regular: Face,
    semibold: Face,
    fallbacks: OnceLock<Vec<Face>>,
}

/// Characters of one line that one font draws.
pub struct Run {
    pub font: Font,
    pub text: String,
    pub glyphs: Vec<KrillaGlyph>,
    /// At size 1.
    pub width: f32,
}

/// A line, ready to be drawn from left to right.
#[derive(Default)]
pub struct Line {
    pub runs: Vec<Run>,
    /// At size 1.
    pub width: f32,
}

impl Fonts {
    /// The fonts of this process; files are read once.
    pub fn shared() -> Result<&'static Self> {
        static FONTS: OnceLock<Option<Fonts>> = OnceLock::new();
        let load = || {
            let (regular, semibold) = (Face::new(REGULAR.to_vec())?, Face::new(SEMIBOLD.to_vec())?);
            Some(Self {
                regular,
                semibold,
                fallbacks: OnceLock::new(),
            })
        };
        FONTS
            .get_or_init(load)
            .as_ref()
            .context("the built-in fonts are unreadable")
    }

    const fn own(&self, weight: Weight) -> &Face {
        match weight {
            Weight::Regular => &self.regular,
            Weight::Semibold => &self.semibold,
        }
    }

    fn fallbacks(&self) -> &[Face] {
        self.fallbacks.get_or_init(|| {
            FALLBACKS
                .iter()
                .filter_map(|path| Face::read(Path::new(path)))
                .collect()
        })
    }

    /// The first font that has a character.
    fn face(&self, weight: Weight, character: char) -> Option<&Face> {
        let own = self.own(weight);
        if own.has(character) {
            Some(own)
        } else {
            self.fallbacks().iter().find(|face| face.has(character))
        }
    }

    /// Replaces each character that no font has by its code point. Returns the text and the
    /// replaced characters.
    pub fn drawable(&self, weight: Weight, text: &str) -> (String, Vec<char>) {
        let (mut drawable, mut missing) = (String::with_capacity(text.len()), Vec::new());
        for character in text.chars() {
            if self.face(weight, character).is_some() {
                drawable.push(character);
            } else {
                drawable.push_str(&format!("[U+{:04X}]", u32::from(character)));
                missing.push(character);
            }
        }
        (drawable, missing)
    }

    /// Shapes a line of [drawable](Self::drawable) text.
    pub fn line(&self, weight: Weight, text: &str) -> Result<Line> {
        let mut line = Line::default();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let face = self.face(weight, first).unwrap_or_else(|| self.own(weight));
            // Spaces and punctuation stay with the script around them.
            let end = rest
                .char_indices()
                .find(|(_, c)| {
                    !(face.has(*c)
                        && self
                            .face(weight, *c)
                            .is_some_and(|own| std::ptr::eq(own, face) || !c.is_alphanumeric()))
                })
                .map_or(
                    rest.len(),
                    |(at, c)| if at == 0 { c.len_utf8() } else { at },
                );
            let (run, after) = rest.split_at(end);
            let run = shape(face, run)?;
            line.width += run.width;
            line.runs.push(run);
            rest = after;
        }
        Ok(line)
    }

    /// Breaks text into lines of at most `width` (at size 1): between words, and inside a word that
    /// is longer than a line.
    pub fn wrap(&self, weight: Weight, text: &str, width: f32) -> Result<Vec<String>> {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let current = lines.last().cloned().unwrap_or_default();
            let joined = if current.is_empty() {
                word.to_owned()
            } else {
                format!("{current} {word}")
            };
            if self.line(weight, &joined)?.width <= width {
                lines.pop();
                lines.push(joined);
                continue;
            }
            if current.is_empty() {
                lines.pop();
            }
            let mut part = String::new();
            for character in word.chars() {
                part.push(character);
                if self.line(weight, &part)?.width > width && part.chars().count() > 1 {
                    part.pop();
                    lines.push(std::mem::replace(&mut part, character.to_string()));
                }
            }
            lines.push(part);
        }
        Ok(lines)
    }
}

fn shape(face: &Face, text: &str) -> Result<Run> {
    let font = ShaperFont::new(&face.shaper);
    let mut buffer = Buffer::new();
    buffer.push_str(text);
    buffer.guess_segment_properties();
    // All digits have one width, so that columns of numbers line up.
    let tabular = [Feature::new(Tag::new(b"tnum"), 1, ..)];
    harfrust::shape(&font, &mut buffer, ShapeOptions::new().features(&tabular))
        .map_err(|e| anyhow::anyhow!("shaping: {e:?}"))?;
    let units = f32::from(face.shaper.units_per_em());
    let mut starts: Vec<usize> = buffer
        .glyph_infos()
        .iter()
        .map(|info| usize::try_from(info.cluster).unwrap_or_default())
        .collect();
    starts.push(text.len());
    starts.sort_unstable();
    let mut glyphs = Vec::new();
    let mut width = 0.0;
    for (info, position) in buffer.glyph_infos().iter().zip(buffer.glyph_positions()) {
        let start = usize::try_from(info.cluster).unwrap_or_default();
        let end = starts
            .iter()
            .copied()
            .find(|other| *other > start)
            .unwrap_or(text.len());
        let advance = position.x_advance as f32 / units;
        width += advance;
        glyphs.push(KrillaGlyph::new(
            GlyphId::new(info.glyph_id),
            advance,
            position.x_offset as f32 / units,
            position.y_offset as f32 / units,
            position.y_advance as f32 / units,
            start..end,
            None,
        ));
    }
    Ok(Run {
        font: face.embedded.clone(),
        text: text.to_owned(),
        glyphs,
        width,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_have_one_width_in_both_weights() {
        let fonts = Fonts::shared().unwrap();
        for weight in [Weight::Regular, Weight::Semibold] {
            let widths: Vec<f32> = (0..10)
                .map(|digit| fonts.line(weight, &digit.to_string()).unwrap().width)
                .collect();
            assert!(
                widths
                    .iter()
                    .all(|w| (w - widths[0]).abs() < 1e-6 && *w > 0.3),
                "{widths:?}"
            );
        }
    }

    #[test]
    fn a_number_is_one_run_and_each_script_has_its_own() {
        let fonts = Fonts::shared().unwrap();
        assert_eq!(
            fonts
                .line(Weight::Regular, "136.371733169")
                .unwrap()
                .runs
                .len(),
            1
        );
        let mixed = fonts.line(Weight::Regular, "Ada 李小龍").unwrap();
        assert_eq!(
            mixed
                .runs
                .iter()
                .map(|run| run.text.as_str())
                .collect::<String>(),
            "Ada 李小龍"
        );
        assert_eq!(mixed.runs.len(), 2, "is fonts-noto-cjk installed?");
    }

    #[test]
    fn a_character_without_a_glyph_is_written_out_and_reported() {
        let fonts = Fonts::shared().unwrap();
        let (text, missing) = fonts.drawable(Weight::Regular, "Ada \u{10FFFD}");
        assert_eq!(
            (text.as_str(), missing),
            ("Ada [U+10FFFD]", vec!['\u{10FFFD}'])
        );
    }

    #[test]
    fn long_names_wrap_between_words_and_inside_them() {
        let fonts = Fonts::shared().unwrap();
        for text in [
            "a name of many words ".repeat(12),
            "w".repeat(200),
            "李小龍".repeat(60),
        ] {
            let lines = fonts.wrap(Weight::Regular, &text, 20.0).unwrap();
            assert!(lines.len() > 2);
            for line in &lines {
                assert!(
                    fonts.line(Weight::Regular, line).unwrap().width <= 20.0,
                    "{line}"
                );
            }
            let letters = |text: &str| {
                text.chars()
                    .filter(|c| !c.is_whitespace())
                    .collect::<String>()
            };
            assert_eq!(letters(&lines.concat()), letters(&text), "nothing is lost");
        }
    }
}

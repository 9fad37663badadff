//! A statement as PDF: A4, laid out by hand on krilla; [`super::text`] shapes each piece of text.

#![expect(
    clippy::as_conversions,
    reason = "page coordinates are floating point by definition of PDF"
)]

use anyhow::Context;
use krilla::{
    Document,
    color::rgb,
    geom::{PathBuilder, Point},
    metadata::Metadata,
    num::NormalizedF32,
    page::PageSettings,
    paint::{Fill, Stroke},
    surface::Surface,
};

use super::{
    StatementView,
    text::{Fonts, Weight},
};

const WIDTH: f32 = 595.0;
const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 48.0;
const ROW: f32 = 15.5;
const NOTE_SIZE: f32 = 9.0;

/// The parts of a page in order, with their heights.
enum Line<'a> {
    Title(&'a str),
    Note(String),
    Heading(&'a str),
    Header(Vec<&'a str>),
    Row(Vec<&'a str>),
    Rule,
    Space,
}

impl Line<'_> {
    const fn height(&self) -> f32 {
        match self {
            Self::Title(_) => 30.0,
            Self::Heading(_) => 26.0,
            Self::Rule => 6.0,
            Self::Space => 10.0,
            _ => ROW,
        }
    }
}

/// The PDF's bytes; the same view always gives the same ones, on a machine with the same fonts.
pub fn statement_pdf(view: &StatementView) -> anyhow::Result<Vec<u8>> {
    let fonts = Fonts::shared()?;
    let mut document = Document::new();
    let title = format!("Sealyard statement, {}", view.month);
    document.set_metadata(
        Metadata::new()
            .title(title)
            .language("en".into())
            .producer("Sealyard".into()),
    );
    let lines = lines(fonts, view)?;
    let mut rest = lines.as_slice();
    let mut number = 1;
    while !rest.is_empty() {
        let (page_lines, after) = rest.split_at(fitting(rest));
        let settings = PageSettings::from_wh(WIDTH, HEIGHT).context("page size")?;
        let mut page = document.start_page_with(settings);
        let mut surface = page.surface();
        draw_page(
            &mut Pen {
                surface: &mut surface,
                fonts,
            },
            page_lines,
            number,
        )?;
        surface.finish();
        page.finish();
        rest = after;
        number += 1;
    }
    document
        .finish()
        .map_err(|error| anyhow::anyhow!("PDF: {error:?}"))
}

/// Adds a note, over as many lines as it needs.
fn note(fonts: &Fonts, text: &str, lines: &mut Vec<Line<'_>>) -> anyhow::Result<()> {
    let (text, missing) = fonts.drawable(Weight::Regular, text);
    if !missing.is_empty() {
        tracing::error!(
            ?missing,
            "no font has these characters of a statement; \
             install fonts-noto-core and fonts-noto-cjk"
        );
    }
    let width = (WIDTH - 2.0 * MARGIN) / NOTE_SIZE;
    lines.extend(
        fonts
            .wrap(Weight::Regular, &text, width)?
            .into_iter()
            .map(Line::Note),
    );
    Ok(())
}

fn lines<'a>(fonts: &Fonts, view: &'a StatementView) -> anyhow::Result<Vec<Line<'a>>> {
    let mut lines = vec![Line::Title("Sealyard statement")];
    note(
        fonts,
        &format!("{} · {}", view.month, view.name),
        &mut lines,
    )?;
    note(fonts, &view.email, &mut lines)?;
    note(
        fonts,
        &format!("Period {} (UTC). All amounts are in FIL.", view.period),
        &mut lines,
    )?;
    add_balances(view, &mut lines);
    add_contracts(view, &mut lines);
    add_days(view, &mut lines);
    lines.push(Line::Space);
    note(
        fonts,
        "Every figure comes from ledger entries that you can trace on your account's pages.",
        &mut lines,
    )?;
    Ok(lines)
}

fn add_balances<'a>(view: &'a StatementView, lines: &mut Vec<Line<'a>>) {
    lines.extend([
        Line::Heading("Balances"),
        Line::Header(vec!["Account", "Opening", "In", "Out", "Closing"]),
        Line::Rule,
    ]);
    for (name, account) in [
        ("Available", &view.available),
        ("Vesting", &view.vesting),
        ("Pledged", &view.pledged),
    ] {
        lines.push(Line::Row(vec![
            name,
            &account.opening,
            &account.moved_in,
            &account.moved_out,
            &account.closing,
        ]));
    }
}

fn add_contracts<'a>(view: &'a StatementView, lines: &mut Vec<Line<'a>>) {
    lines.extend([
        Line::Heading("Contracts"),
        Line::Header(vec![
            "Contract",
            "Size",
            "Earned",
            "Fees, costs",
            "Compensation",
            "Net",
        ]),
        Line::Rule,
    ]);
    for contract in &view.contracts {
        lines.push(Line::Row(vec![
            &contract.contract,
            &contract.size,
            &contract.gross,
            &contract.fee,
            &contract.made_up,
            &contract.net,
        ]));
    }
}

fn add_days<'a>(view: &'a StatementView, lines: &mut Vec<Line<'a>>) {
    lines.extend([
        Line::Heading("Days"),
        Line::Header(vec![
            "Day",
            "Fees, costs",
            "To available",
            "To vesting",
            "Vested",
        ]),
        Line::Rule,
    ]);
    for day in &view.days {
        lines.push(Line::Row(vec![
            &day.day,
            &day.fee,
            &day.to_available,
            &day.to_vesting,
            &day.vested,
        ]));
    }
}

/// The number of lines that fit on a page, at least one.
fn fitting(lines: &[Line<'_>]) -> usize {
    let mut left = HEIGHT - 2.0 * MARGIN - 20.0;
    let mut count = 0;
    for line in lines {
        left -= line.height();
        if left < 0.0 {
            break;
        }
        count += 1;
    }
    count.max(1)
}

/// Draws on one page.
struct Pen<'p, 's> {
    surface: &'p mut Surface<'s>,
    fonts: &'p Fonts,
}

/// The appearance of a piece of text.
#[derive(Clone, Copy)]
struct Style {
    weight: Weight,
    size: f32,
    colour: (u8, u8, u8),
}

const INK: (u8, u8, u8) = (23, 32, 42);
const GREY: (u8, u8, u8) = (96, 108, 118);
const TITLE: Style = Style {
    weight: Weight::Semibold,
    size: 20.0,
    colour: INK,
};
const HEADING: Style = Style {
    weight: Weight::Semibold,
    size: 12.0,
    colour: INK,
};
const NOTE: Style = Style {
    weight: Weight::Regular,
    size: NOTE_SIZE,
    colour: GREY,
};
const HEADER: Style = Style {
    weight: Weight::Semibold,
    size: 8.5,
    colour: GREY,
};
const CELL: Style = Style {
    weight: Weight::Regular,
    size: 8.5,
    colour: INK,
};
const FOOTER: Style = Style {
    weight: Weight::Regular,
    size: 8.0,
    colour: GREY,
};

/// The end of a text that its position refers to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Left,
    Right,
}

fn draw_page(pen: &mut Pen<'_, '_>, lines: &[Line<'_>], number: usize) -> anyhow::Result<()> {
    let mut y = MARGIN;
    for line in lines {
        y += line.height();
        match line {
            Line::Title(text) => pen.write(TITLE, (MARGIN, y - 8.0), Anchor::Left, text)?,
            Line::Heading(text) => pen.write(HEADING, (MARGIN, y - 5.0), Anchor::Left, text)?,
            Line::Note(text) => pen.write(NOTE, (MARGIN, y - 4.0), Anchor::Left, text)?,
            Line::Header(cells) => pen.row(HEADER, y - 4.0, cells)?,
            Line::Row(cells) => pen.row(CELL, y - 4.0, cells)?,
            Line::Rule => pen.rule(y - 3.0),
            Line::Space => {}
        }
    }
    pen.write(
        FOOTER,
        (MARGIN, HEIGHT - MARGIN + 12.0),
        Anchor::Left,
        &format!("Page {number}"),
    )
}

impl Pen<'_, '_> {
    /// Draws the first cell at the left, and the others right-aligned in equal columns.
    fn row(&mut self, style: Style, y: f32, cells: &[&str]) -> anyhow::Result<()> {
        const FIRST: f32 = 135.0;
        let columns = cells.len().saturating_sub(1).max(1) as f32;
        let width = (WIDTH - 2.0 * MARGIN - FIRST) / columns;
        for (index, cell) in cells.iter().enumerate() {
            let (x, anchor) = if index == 0 {
                (MARGIN, Anchor::Left)
            } else {
                (MARGIN + FIRST + width * index as f32, Anchor::Right)
            };
            self.write(style, (x, y), anchor, cell)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        style: Style,
        (x, y): (f32, f32),
        anchor: Anchor,
        text: &str,
    ) -> anyhow::Result<()> {
        let line = self.fonts.line(style.weight, text)?;
        let mut x = if anchor == Anchor::Right {
            x - line.width * style.size
        } else {
            x
        };
        let (r, g, b) = style.colour;
        self.surface.set_stroke(None);
        self.surface.set_fill(Some(Fill {
            paint: rgb::Color::new(r, g, b).into(),
            opacity: NormalizedF32::ONE,
            rule: Default::default(),
        }));
        for run in line.runs {
            self.surface.draw_glyphs(
                Point::from_xy(x, y),
                &run.glyphs,
                run.font,
                &run.text,
                style.size,
                false,
            );
            x += run.width * style.size;
        }
        Ok(())
    }

    fn rule(&mut self, y: f32) {
        let mut path = PathBuilder::new();
        path.move_to(MARGIN, y);
        path.line_to(WIDTH - MARGIN, y);
        if let Some(path) = path.finish() {
            self.surface.set_fill(None);
            self.surface.set_stroke(Some(Stroke {
                paint: rgb::Color::new(210, 216, 220).into(),
                width: 0.7,
                ..Stroke::default()
            }));
            self.surface.draw_path(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::render::{AccountView, ContractView, DayView};

    fn account(n: i64) -> AccountView {
        let fil = |n: i64| format!("{}.{:09}", n * 111, n * 123_456_789 % 1_000_000_000);
        AccountView {
            opening: fil(n),
            moved_in: fil(n + 1),
            moved_out: fil(n + 2),
            closing: fil(n + 3),
        }
    }

    fn view(name: &str) -> StatementView {
        let contract = ContractView {
            contract: "ctr_0123456789abcdef".into(),
            size: "4 KiB".into(),
            gross: "136.371733169".into(),
            fee: "-27.274346633".into(),
            made_up: "0.000000001".into(),
            net: "109.097386537".into(),
        };
        let day = |day: u32| DayView {
            day: format!("2026-10-{day:02}"),
            fee: format!("0.{day:09}"),
            to_available: format!("{day}.111111111"),
            to_vesting: format!("{day}.171717171"),
            vested: format!("1.{:09}", 987_654_321 - day),
        };
        StatementView {
            month: "October 2026".into(),
            name: name.into(),
            email: "ada@sealyard.example".into(),
            period: "2026-10-01 to 2026-10-31".into(),
            earned: "109.097386537".into(),
            available: account(1),
            vesting: account(4),
            pledged: account(7),
            contracts: vec![contract],
            days: (1..=31).map(day).collect(),
            url: String::new(),
        }
    }

    fn figures(view: &StatementView) -> Vec<String> {
        let accounts = [&view.available, &view.vesting, &view.pledged].into_iter();
        let balances = accounts.flat_map(|a| [&a.opening, &a.moved_in, &a.moved_out, &a.closing]);
        let contracts = view
            .contracts
            .iter()
            .flat_map(|c| [&c.gross, &c.fee, &c.made_up, &c.net]);
        let days = view
            .days
            .iter()
            .flat_map(|d| [&d.fee, &d.to_available, &d.to_vesting, &d.vested]);
        balances.chain(contracts).chain(days).cloned().collect()
    }

    /// The text that two independent readers extract; `scripts/test` installs both.
    fn extracted(pdf: &[u8]) -> [String; 2] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statement.pdf");
        std::fs::write(&path, pdf).unwrap();
        let poppler = Command::new("pdftotext")
            .arg("-layout")
            .arg(&path)
            .arg("-")
            .output()
            .expect("poppler-utils");
        let program = "import sys, pypdf\n\
            pages = pypdf.PdfReader(sys.argv[1]).pages\n\
            print('\\n'.join(p.extract_text() for p in pages))";
        let pypdf = Command::new("/usr/bin/python3")
            .arg("-c")
            .arg(program)
            .arg(&path)
            .output()
            .expect("python3-pypdf");
        assert!(
            poppler.status.success() && pypdf.status.success(),
            "{poppler:?} {pypdf:?}"
        );
        [poppler, pypdf].map(|output| String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn other_programs_read_the_exact_figures_of_a_statement() {
        let view = view("Ada Lindqvist");
        let wanted = figures(&view);
        assert!(wanted.len() > 100);
        for text in extracted(&statement_pdf(&view).unwrap()) {
            let mut found: Vec<&str> = text.split_whitespace().collect();
            for figure in &wanted {
                let at = found.iter().position(|word| word == figure);
                found.swap_remove(at.unwrap_or_else(|| panic!("{figure} is missing in:\n{text}")));
            }
        }
    }

    #[test]
    fn long_names_and_names_in_other_scripts_can_be_read_back() {
        for name in [
            "李小龍",
            "สมชาย ใจดี",
            "Ярослав Ильич",
            "Ng\u{169}g\u{129}",
            &"Maximiliane-Charlotte ".repeat(12),
        ] {
            let [poppler, _] = extracted(&statement_pdf(&view(name)).unwrap());
            let letters = |text: &str| {
                text.chars()
                    .filter(|c| !c.is_whitespace())
                    .collect::<String>()
            };
            assert!(
                letters(&poppler).contains(&letters(name)),
                "{name} is missing in:\n{poppler}"
            );
        }
        let [poppler, _] = extracted(&statement_pdf(&view("محمد")).unwrap());
        assert!(!poppler.contains("[U+"), "{poppler}");
        let [poppler, _] = extracted(&statement_pdf(&view("Ada \u{10FFFD}")).unwrap());
        assert!(poppler.contains("Ada [U+10FFFD]"), "{poppler}");
    }
}

//! The plot: how many times as fast as the single statement everybody is, in the cache and read-bound.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{
    contestant::Contestant,
    goal::{IN_CACHE, READ_BOUND, race},
    race::Race,
    results::Results,
    statistic::times_as_fast,
};

const SIZE: (u32, u32) = (1080, 760);
const FONT: &str = "sans-serif";
const OWN: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const LIMIT: RGBColor = RGBColor(0x88, 0x88, 0x88);
const OTHER: RGBColor = RGBColor(0xd9, 0x95, 0x4a);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The SVG; a race that was not measured is left empty.
pub(crate) fn draw(results: &Results) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = || -> Result<(), DrawingAreaErrorKind<_>> {
            root.fill(&WHITE)?;
            let (upper, lower) = root.split_vertically(SIZE.1 / 2);
            bars(
                &upper,
                "Update in the cache: times as fast as the single statement",
                race(&results.write.found, IN_CACHE),
            )?;
            bars(
                &lower,
                "Update, each page read delayed by 0.5 ms: times as fast as the single statement",
                race(&results.read_bound.found, READ_BOUND),
            )?;
            root.present()
        };
        drawn().map_err(|error| anyhow!("the plot can't be drawn: {error}"))?;
    }
    Ok(svg)
}

/// One bar for each contestant, with its name before and its ratio behind it.
fn bars<'a>(
    area: &Area<'a>,
    title: &str,
    race: Option<&Race>,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    const LEFT: i32 = 260;
    const TOP: i32 = 44;
    let bold = (FONT, 19).into_font().style(FontStyle::Bold).color(&BLACK);
    area.draw(&Text::new(title.to_owned(), (16, 14), bold))?;
    let ratios = race.map(ratios).unwrap_or_default();
    let most = ratios.iter().map(|(_, ratio)| *ratio).fold(1.0, f64::max);
    let (width, height) = area.dim_in_pixel();
    let room = f64::from(width) - f64::from(LEFT) - 80.0;
    let step = ((height as i32 - TOP - 8) / i32::try_from(ratios.len().max(1)).unwrap_or(1)).min(34);
    let text = (FONT, 15).into_font().color(&BLACK);
    let name_style = text.clone().pos(Pos::new(HPos::Right, VPos::Center));
    let ratio_style = text.pos(Pos::new(HPos::Left, VPos::Center));
    // Where the single statement stands, below the bars.
    let one = LEFT + (room / most) as i32;
    let bottom = TOP + step * i32::try_from(ratios.len()).unwrap_or(0);
    area.draw(&PathElement::new(vec![(one, TOP - 4), (one, bottom + 4)], BLACK.mix(0.4)))?;
    for (row, (contestant, ratio)) in (0..).zip(&ratios) {
        let top = TOP + row * step;
        let (middle, right) = (top + step / 2, LEFT + (ratio / most * room) as i32);
        area.draw(&Rectangle::new([(LEFT, top + 3), (right, top + step - 3)], color(contestant).filled()))?;
        area.draw(&Text::new(contestant.name(), (LEFT - 8, middle), name_style.clone()))?;
        area.draw(&Text::new(format!("{ratio:.2}"), (right + 6, middle), ratio_style.clone()))?;
    }
    Ok(())
}

/// Everybody's ratio to the single statement, the slowest first.
fn ratios(race: &Race) -> Vec<(&Contestant, f64)> {
    let Some(single) = race.find(|contestant| *contestant == Contestant::Single) else { return Vec::new() };
    let ratio = |seconds: &[f64]| times_as_fast(seconds, &single.seconds());
    let mut ratios: Vec<_> =
        race.entrants.iter().filter_map(|entrant| Some((&entrant.contestant, ratio(&entrant.seconds())?))).collect();
    ratios.sort_by(|one, other| one.1.total_cmp(&other.1));
    ratios
}

fn color(contestant: &Contestant) -> RGBColor {
    match contestant {
        Contestant::Stagemill { .. } => OWN,
        Contestant::Limit { .. } => LIMIT,
        _ => OTHER,
    }
}

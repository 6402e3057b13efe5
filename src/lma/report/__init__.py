"""Tables, plots and one HTML page, made from result lines alone."""

from lma.report.best import BudgetBest, best_per_budget
from lma.report.caveats import caveats
from lma.report.headline import headline
from lma.report.markdown import markdown_table
from lma.report.page import render_report, write_report
from lma.report.paired import PairedDifference, paired_difference
from lma.report.plot_file import save_plot
from lma.report.statistics import Estimate
from lma.report.summary import Summary, summarise
from lma.report.terminal import results_table

__all__ = [
    "BudgetBest",
    "Estimate",
    "PairedDifference",
    "Summary",
    "best_per_budget",
    "caveats",
    "headline",
    "markdown_table",
    "paired_difference",
    "render_report",
    "results_table",
    "save_plot",
    "summarise",
    "write_report",
]

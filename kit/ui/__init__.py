"""The pages of the app, one file each; a page is a class that is laid out when it is made."""

from kit.ui.batch import Batch
from kit.ui.explore import Explore
from kit.ui.learn import Learn
from kit.ui.prompts import Prompts

PAGES = {"Explore": Explore, "Prompts": Prompts, "Learn": Learn, "Batch": Batch}  # title of the tab -> page, in order

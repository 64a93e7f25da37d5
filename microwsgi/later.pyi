import difflib as difflib
import json as json
import tomllib as tomllib
import traceback as traceback

import difflib as difflib
import json as json
import linecache as linecache
import tomllib as tomllib
import traceback as traceback

import ast as ast
import difflib as difflib
import json as json
import linecache as linecache
import shlex as shlex
import tempfile as tempfile
import tomllib as tomllib
import traceback as traceback

"""The stand-in under the name of pydantic: on the path of gpu.py and of loader processes, where pydantic is missing."""

import pydantic_stand_in

globals().update({name: getattr(pydantic_stand_in, name) for name in pydantic_stand_in.OFFERED})

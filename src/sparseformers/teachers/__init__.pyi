from .base import Teacher as Teacher
from .base import TeacherIdentity as TeacherIdentity
from .base import TeacherOutput as TeacherOutput
from .registry import absolute_name as absolute_name
from .registry import load_teacher as load_teacher
from .registry import untrained_teacher as untrained_teacher
